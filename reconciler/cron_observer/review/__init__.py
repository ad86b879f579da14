"""Say what a change of manifests does before it is applied: what the plan does, and which fires come, go and move.

Pure. `rows` makes what is in force out of the base, `changes` tells the plan, `fires` compares when tasks fire,
`warnings` what is worth a second look, `looking` puts them together; `text`, `as_json` and `markdown` write it down.
"""
