"""The verbs: `python -m nutclf VERB`. The only room that prints; it wires the others together."""
