"""What happens beside the training: records, pictures, scores, checkpoints. One file each."""
