package access

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync/atomic"
)

// TokenPrefix begins every token, so that one can be found where it does not
// belong.
const TokenPrefix = "wst_"

// NewToken returns a token and the line for the server's file.
func NewToken(name string, role Role) (token, line string, err error) {
	if !tokenName.MatchString(name) {
		return "", "", fmt.Errorf("%q is no name for a token: letters, digits, dots, - and _, at most 64", name)
	}
	random := make([]byte, 32)
	if _, err := rand.Read(random); err != nil {
		return "", "", err
	}
	token = TokenPrefix + base64.RawURLEncoding.EncodeToString(random)
	return token, fmt.Sprintf("%s:%s:%s", name, role, hash(token)), nil
}

func hash(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

var (
	tokenName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)
	tokenHash = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// Tokens are those of a file of lines NAME:ROLE:SHA256HEX. Empty lines and lines
// that begin with # are passed over.
type Tokens struct {
	file string
	held atomic.Pointer[map[string]Identity] // by hash
}

// NewTokens reads a file of tokens.
func NewTokens(file string) (*Tokens, error) {
	t := &Tokens{file: file}
	_, err := t.Reload()
	return t, err
}

// Reload reads the file again and tells whether it says something else. While it
// is faulty the tokens of before hold.
func (t *Tokens) Reload() (changed bool, err error) {
	text, err := os.ReadFile(t.file)
	if err != nil {
		return false, err
	}
	next := map[string]Identity{}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		part := strings.Split(line, ":")
		switch {
		case len(part) != 3 || !tokenName.MatchString(part[0]) || !tokenHash.MatchString(part[2]):
			return false, fmt.Errorf("%s:%d: is not NAME:ROLE:SHA256HEX; `wellspring token NAME` prints such a line", t.file, n)
		case part[1] != string(Read) && part[1] != string(Write):
			return false, fmt.Errorf("%s:%d: the role of %s is neither read nor write", t.file, n, part[0])
		}
		if other, ok := next[part[2]]; ok {
			return false, fmt.Errorf("%s:%d: %s has the token of %s", t.file, n, part[0], other.Name)
		}
		next[part[2]] = Identity{part[0], Role(part[1])}
	}
	if err := lines.Err(); err != nil {
		return false, fmt.Errorf("%s: %w", t.file, err)
	}
	before := t.held.Swap(&next)
	return before != nil && !equal(*before, next), nil
}

func equal(a, b map[string]Identity) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if b[k] != v {
			return false
		}
	}
	return true
}

// find returns whose token it is. Tokens are compared by their hashes: what an
// attacker could time says nothing about a token.
func (t *Tokens) find(token string) (Identity, bool) {
	id, ok := (*t.held.Load())[hash(token)]
	return id, ok
}
