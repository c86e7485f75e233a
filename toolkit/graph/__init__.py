"""Graph -> Graph: one pure pass a file. A graph is a plain `onnx_ir.Model`; a pass never changes the one it was given."""
