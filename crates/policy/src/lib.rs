//! PeerAuthentication: resource, validation, precedence, decision, explanation
