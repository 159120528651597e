// Package access says who may come in: TLS of our own listeners, tokens, roles,
// and the names in a client's certificate.
//
// Who comes is told by a credential, never by an address: a token, or a client
// certificate that our authority signed. Only a listener that is bound to loopback
// or to a unix socket, and that was given no credentials to ask for, takes whoever
// can reach it, with every right.
//
// Decisions:
//   - A token lies in the server's file as its SHA-256: it is 32 random bytes, so
//     that no slow hash is needed, and a file that leaks lets nobody in.
//   - A client certificate may read; those whose names match `writers` may write.
//   - Sessions are not resumed: whoever comes back is verified again, by the
//     authority of today. An open stream outlives the certificate it came with.
package access

// Role is what somebody may do.
type Role string

// The roles. Write includes read.
const (
	Read  Role = "read"
	Write Role = "write"
)

// Identity is whose credential a request carries.
type Identity struct {
	// Name of the token, the first name in the certificate, or "loopback".
	Name string
	Role Role
}

// Anonymous is whoever comes in where no credentials are asked for.
var Anonymous = Identity{Name: "loopback", Role: Write}
