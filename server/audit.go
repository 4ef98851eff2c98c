package server

// An Auditor is told what those who answer for a cluster want to look up afterwards: who
// was denied what, who did not get in, and who changed whose rights. It is called by many
// goroutines at once, by those that serve requests: it must return soon.
type Auditor interface {
	Audit(AuditEvent)
}

// An AuditEvent is one thing that happened. No field holds a secret.
type AuditEvent struct {
	Kind      string // "denied"; others have theirs
	Principal string // who it was, "User:alice"
	Host      string // from where
	Client    string // the id that the client gives itself
	Request   string // the name of the API
	Subject   string // with what: "WRITE on TOPIC orders"
	Outcome   string
}
