"""How well frozen features transfer to labelled clips."""
