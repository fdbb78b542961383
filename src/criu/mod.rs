//! What CRIU is: its versions, options, runs, logs and images.
