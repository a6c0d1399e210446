"""One equation per function: pure functions of tensors, one number a row. The objectives reduce over the batch."""
