package access_test

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/wellspring-xds/wellspring/pkg/access"
)

// A token is shown once; its line says who and what, and never the token.
func TestNewToken(t *testing.T) {
	token, line, err := access.NewToken("anna", access.Write)
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`^wst_[A-Za-z0-9_-]{43}$`).MatchString(token) {
		t.Errorf("token %q", token)
	}
	if !regexp.MustCompile(`^anna:write:[0-9a-f]{64}$`).MatchString(line) || strings.Contains(line, token) {
		t.Errorf("line %q", line)
	}
	if again, _, _ := access.NewToken("anna", access.Write); again == token {
		t.Error("the same token twice")
	}
	for _, name := range []string{"", "a:b", "a b", "ä", strings.Repeat("x", 65)} {
		if _, _, err := access.NewToken(name, access.Read); err == nil {
			t.Errorf("the name %q is taken", name)
		}
	}
}

// The file is read again; while it is faulty the tokens of before hold, and the
// fault names the line and quotes nothing of it.
func TestTokensAreReadAgain(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tokens")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := access.NewTokens(file); err == nil {
		t.Error("a file that is not there")
	}
	anna, annas, _ := access.NewToken("anna", access.Read)
	bert, berts, _ := access.NewToken("bert", access.Write)
	write("# who may\n\n" + annas + "\n")
	tokens, err := access.NewTokens(file)
	if err != nil {
		t.Fatal(err)
	}
	gate := access.Gate{Tokens: tokens}
	who := func(token string) string {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Authorization", "Bearer "+token)
		id, err := gate.Identify(r)
		if err != nil {
			return "nobody"
		}
		return id.Name + " " + string(id.Role)
	}
	if got := who(anna) + ", " + who(bert) + ", " + who("") + ", " + who(annas); got != "anna read, nobody, nobody, nobody" {
		t.Error(got)
	}
	if changed, err := tokens.Reload(); changed || err != nil {
		t.Errorf("the same file: %v %v", changed, err)
	}
	hash := berts[strings.LastIndex(berts, ":")+1:]
	for text, says := range map[string]string{
		annas + "\nbert:admin:" + hash:            ":2: the role of bert is neither read nor write",
		"bert:write":                              ":1: is not NAME:ROLE:SHA256HEX",
		"bert:write:" + bert:                      ":1: is not NAME:ROLE:SHA256HEX",
		"bert:write:" + strings.ToUpper(hash):     ":1: is not NAME:ROLE:SHA256HEX",
		berts + "\n" + "carl:read:" + hash + "\n": ":2: carl has the token of bert",
	} {
		write(text)
		if _, err := tokens.Reload(); err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), bert) {
			t.Errorf("%q: %v, want %q", text, err, says)
		}
		if who(anna) != "anna read" {
			t.Errorf("%q took the good tokens away", text)
		}
	}
	write(berts)
	if changed, err := tokens.Reload(); !changed || err != nil {
		t.Errorf("another file: %v %v", changed, err)
	}
	if got := who(anna) + ", " + who(bert); got != "nobody, bert write" {
		t.Error(got)
	}
}
