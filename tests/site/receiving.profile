profile: ward
messages: [ADT]
rules:
  PID-99: R
  XYZ: R
  PID-8: S
  PID-29: { usage: C }
  PID-7: { lenght: 8 }
