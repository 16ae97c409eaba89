"""loramend repairs LoRA adapters after training."""
