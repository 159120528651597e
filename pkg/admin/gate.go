package admin

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/wellspring-xds/wellspring/pkg/access"
)

// gate lets a request in by its credential, or answers 401 or 403. It stands
// before every path, those that nobody registered included: what it does not
// know to be open is closed.
func (s *server) gate(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		needs := roleFor(r)
		if needs == "" {
			next.ServeHTTP(w, r)
			return
		}
		id, err := s.Gate.Identify(r)
		switch {
		case err != nil:
			w.Header().Set("WWW-Authenticate", `Bearer realm="wellspring"`)
			s.Logger.Warn("request without a right credential refused", "method", r.Method, "peer", r.RemoteAddr, "err", err)
			writeError(w, newError(http.StatusUnauthorized, err.Error()))
			return
		case needs == access.Write && id.Role != access.Write:
			s.Logger.Warn("request refused for its role", "method", r.Method, "peer", r.RemoteAddr, "actor", id.Name)
			writeError(w, newError(http.StatusForbidden, fmt.Sprintf(
				"%s may only read; give it the role write in the file of tokens, or its certificate's name a place in admin.writers", id.Name)))
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), actorKey{}, id)))
	})
}

// roleFor is what a request needs; "" is nothing.
func roleFor(r *http.Request) access.Role {
	read := r.Method == http.MethodGet || r.Method == http.MethodHead
	query, err := url.ParseQuery(r.URL.RawQuery)
	switch {
	case err != nil && !read: // who reads it otherwise may find another word in it
		return access.Write
	case read && r.URL.Path == "/livez", read && r.URL.Path == "/readyz" && len(query) == 0:
		return ""
	case strings.HasPrefix(r.URL.Path, "/debug/"):
		return access.Write // it slows the process down, and shows what is in it
	case read:
		return access.Read
	case r.Method == http.MethodPost && r.URL.Path == "/v1/apply" && slices.Equal(query["dryRun"], []string{"true"}):
		return access.Read // it changes nothing: who reviews a change need not be able to make it
	}
	return access.Write
}

type actorKey struct{}

// actor is whose credential a request carries.
func actor(ctx context.Context) string {
	id, _ := ctx.Value(actorKey{}).(access.Identity)
	return id.Name
}

// mayWrite tells whether that credential may. A handler that can both change
// something and only say what would change asks again here, by what it will do.
func mayWrite(ctx context.Context) bool {
	id, _ := ctx.Value(actorKey{}).(access.Identity)
	return id.Role == access.Write
}

// knownHosts refuses a page that made its own name point to this machine. An IP
// address cannot be made to point elsewhere; a name has to be loopback's or listed.
func (s *server) knownHosts(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		if host != "localhost" && !slices.Contains(s.AllowedHosts, host) && !s.ownAddress(r, host) {
			writeError(w, newError(http.StatusMisdirectedRequest, fmt.Sprintf(
				"the host %q is not this server; use its IP address or localhost, or list the name in admin.allowedHosts", r.Host)))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// ownAddress tells whether a host is loopback, or the address that the request
// came in at.
func (s *server) ownAddress(r *http.Request, host string) bool {
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return false
	}
	at, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok {
		return ip.IsLoopback()
	}
	own, err := netip.ParseAddrPort(at.String())
	return ip.IsLoopback() || err == nil && own.Addr().Unmap() == ip.Unmap()
}
