//! YAML text to a tree that knows the line, column and style of every key and value
