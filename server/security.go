package server

// A security answers about who may log in, and what is set for them.
type security struct{ *broker }
