"""Energy of a measurement, from whatever meter the machine has."""
