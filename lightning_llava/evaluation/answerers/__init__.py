"""Whatever can answer questions about pictures, behind one small protocol."""
