"""The published experiment, climbed rung by rung."""
