//! The issuing core: roots and workload SVIDs
