//! Nodes in network namespaces of their own, on a switch in yet another: cuts of every shape.
