//! Listening, original destination, detection, replay and the copy loop; knows nothing of policy
