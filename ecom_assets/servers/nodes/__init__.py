"""The servers of a cluster, a module per system; ``kinds`` lists them.

A node is the same class whether ``ecom up --profile cluster`` starts it as a process or a container runs it, so that
what is tested as plain processes is what containers run.
"""
