"""The networks that BLIP is made of."""
