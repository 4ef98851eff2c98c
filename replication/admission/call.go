package admission

// CallJoin is the call by which a node asks to be taken in: a Request, answered by an
// Answer, both JSON.
const CallJoin uint8 = 2

// A Request asks to become a member.
type Request struct {
	Node        int32  `json:"node"` // 0: any free id
	Incarnation string `json:"incarnation"`
	Host        string `json:"host"`
	Port        int32  `json:"port"`
	Rack        string `json:"rack,omitempty"`
	Forwarded   bool   `json:"forwarded,omitempty"`
	MinLevel    int32  `json:"minLevel,omitempty"` // the feature levels it reads; 0: the first release
	MaxLevel    int32  `json:"maxLevel,omitempty"`

	// Since feature level 4.
	Token       string `json:"token,omitempty"` // an identity.Token's
	Secret      []byte `json:"secret,omitempty"`
	Certificate []byte `json:"certificate,omitempty"` // asked for: PKCS #10, DER
	// Vouched is what the node that was asked knows of who asked, and passes on: one of
	// those below. Nobody is believed what he says there of himself.
	Vouched string `json:"vouched,omitempty"`
}

// What a node knows of who asked it.
const (
	vouchedCertificate = "certificate" // shown, of the node and the incarnation that it asks for
	vouchedLoopback    = "loopback"    // it is on this machine
	vouchedSealed      = "sealed"      // it came over TLS
)

// An Answer tells the new member who it is.
type Answer struct {
	Cluster string           `json:"cluster"`
	Node    int32            `json:"node"`
	Peers   map[int32]string `json:"peers"`
	Refused string           `json:"refused,omitempty"` // why not; nothing else is set then
	Retry   bool             `json:"retry,omitempty"`   // trying again later may help

	// Since feature level 4, PEM: the certificate that was asked for, and the authorities to
	// believe.
	Certificate []byte   `json:"certificate,omitempty"`
	Authorities [][]byte `json:"authorities,omitempty"`
}

// IDTaken ends the text of an Answer that refuses an id: that is how whoever is refused
// tells.
const IDTaken = "; choose another id"
