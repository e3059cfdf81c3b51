//! What every stage may use: validated names and hosts, secrets that cannot be printed, files with
//! the right modes, and the one door to system calls that the standard library does not offer.

