"""What a trained pair is worth: accuracy against bytes, cost on the device, the report and its plots."""
