"""How well features transfer to labelled clips."""
