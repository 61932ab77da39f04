"""The limit of a measurement: what a graph costs, what a machine can do, and their quotient."""
