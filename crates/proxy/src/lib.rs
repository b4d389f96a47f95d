//! The story of one inbound and of one outbound connection
