//! Hot reload: watch files, debounce, read the whole set, swap or keep the last good one
