//! The container's network as the host sees it: the host-side ends of its veth pairs and their bridges.
