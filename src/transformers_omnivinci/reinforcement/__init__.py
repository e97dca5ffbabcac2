"""Reinforcement learning: GRPO (section 4.3 of the paper) with rewards by rule, and media encoded once a prompt."""
