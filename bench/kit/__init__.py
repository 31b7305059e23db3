"""What bench/run is made of: processes, clusters, peers, measures and cases."""
