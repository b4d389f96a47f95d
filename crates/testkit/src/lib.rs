//! Development only: certificates with every fault, and small applications to test against
