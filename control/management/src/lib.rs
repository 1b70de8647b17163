//! What xtipcd and its tools tell each other over the control socket.
