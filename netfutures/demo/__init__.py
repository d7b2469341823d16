"""The demo: the complexity of every function of the standard library, measured on all cores and on one."""
