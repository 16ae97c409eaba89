"""Safety that fine-tuning eroded, repaired with every method and measured on a real aligned pair."""
