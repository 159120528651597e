package access

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/wellspring-xds/wellspring/pkg/certificate"
	"github.com/wellspring-xds/wellspring/pkg/model"
)

// Gate says whose request it is. Its zero value asks for no credentials.
type Gate struct {
	// Tokens that are taken; nil takes none.
	Tokens *Tokens
	// Certificates tells that client certificates are asked for.
	Certificates bool
	// Writers are the names of those who may write with a certificate: exact, or
	// with one * at the beginning or the end.
	Writers []string
}

// ErrNoCredential and ErrWrongCredential refuse a request.
var (
	ErrNoCredential    = errors.New("a credential is needed")
	ErrWrongCredential = errors.New("this credential is not known")
)

// Identify returns whose credential a request carries. A token that is sent must
// be right: a certificate beside it does not help.
func (g *Gate) Identify(r *http.Request) (Identity, error) {
	if header := r.Header.Get("Authorization"); header != "" && g.Tokens != nil {
		scheme, token, _ := strings.Cut(header, " ")
		if id, ok := g.Tokens.find(strings.TrimSpace(token)); ok && strings.EqualFold(scheme, "Bearer") {
			return id, nil
		}
		return Identity{}, fmt.Errorf("%w; ask who runs this server for a token", ErrWrongCredential)
	}
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		leaf := r.TLS.PeerCertificates[0]
		id := Identity{nameOf(leaf), Read}
		if model.MatchAnyName(g.Writers, certificate.SANs(leaf)) {
			id.Role = Write
		}
		return id, nil
	}
	switch {
	case g.Tokens == nil && !g.Certificates:
		return Anonymous, nil
	case g.Tokens == nil:
		return Identity{}, fmt.Errorf("%w: come with a client certificate (--cert, --key)", ErrNoCredential)
	case !g.Certificates:
		return Identity{}, fmt.Errorf("%w: send a token (--token-file or WELLSPRING_TOKEN)", ErrNoCredential)
	}
	return Identity{}, fmt.Errorf("%w: send a token (--token-file or WELLSPRING_TOKEN), or come with a client certificate (--cert, --key)", ErrNoCredential)
}
