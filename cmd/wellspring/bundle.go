package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/wellspring-xds/wellspring/pkg/admin"
	"github.com/wellspring-xds/wellspring/pkg/health"
)

func bundleCommand(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use: "bundle", Short: "Collect what is needed to look at an outage later", Args: cobra.NoArgs,
		Long: "Writes a tar.gz of what the server knows now and of what happened: health,\n" +
			"trends and failures of upstreams that are not well, proxies and what those hold\n" +
			"that refused something, sources, documents, revisions, events, metrics. Values\n" +
			"that look like secrets are redacted; read it before you send it to somebody.\n\n" +
			"Exit status: 0 everything is in it, 79 something could not be collected; it says\nwhat, and the rest is there.",
		Example: "  wellspring bundle\n  wellspring bundle --file outage.tar.gz --since 6h\n  tar -xzOf outage.tar.gz health.json | less",
	}
	file := cmd.Flags().String("file", "", "where it is written; default wellspring-bundle-TIME.tar.gz, - is stdout")
	since := cmd.Flags().String("since", "24h", "from when on events are in it: 2h (ago), 14:00, or RFC 3339")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		now := time.Now()
		from, err := moment(*since, now)
		if err != nil {
			return &exitError{exitUsage, "--since: " + err.Error()}
		}
		b := &bundle{g: g, now: now}
		if err := b.collect(cmd.Context(), from); err != nil {
			return err
		}
		out, path := cmd.OutOrStdout(), *file
		if path == "" {
			path = "wellspring-bundle-" + now.Format("20060102T150405") + ".tar.gz"
		}
		if path != "-" {
			f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
			if err != nil {
				return &exitError{exitFailed, fmt.Sprintf("%s; choose another --file", err)}
			}
			if err := errors.Join(b.write(f), f.Close()); err != nil {
				return err
			}
		} else if err := b.write(out); err != nil {
			return err
		}
		said := cmd.ErrOrStderr()
		_, _ = fmt.Fprintf(said, "%s: %d files\n", path, len(b.parts))
		for _, gap := range b.gaps {
			_, _ = fmt.Fprintln(said, cut("not collected: "+gap))
		}
		if len(b.gaps) > 0 {
			return &exitError{exitFound, ""}
		}
		return nil
	}
	return cmd
}

// bundle is what is collected.
type bundle struct {
	g     *global
	now   time.Time
	parts []part
	gaps  []string
}

type part struct {
	name string
	text []byte
}

// maxHoldings of proxies, and maxSick upstreams, are in a bundle.
const (
	maxHoldings = 20
	maxSick     = 200
	maxEvents   = 10_000
)

// collect asks for everything. Only where the server cannot be reached at all is it an
// error.
func (b *bundle) collect(ctx context.Context, from time.Time) error {
	var o admin.Overview
	if err := b.g.client().Get(ctx, "/v1/health", nil, &o); err != nil {
		return err
	}
	var p admin.Proxies
	if err := b.g.client().Get(ctx, "/v1/proxies", nil, &p); err != nil {
		b.gaps = append(b.gaps, "/v1/proxies: "+err.Error())
	}
	b.json(ctx, "health.json", "/v1/health", nil)
	b.json(ctx, "proxies.json", "/v1/proxies", nil)
	for name, path := range map[string]string{
		"version.json": "/version", "sources.json": "/v1/sources", "certificates.json": "/v1/certificates", "overrides.json": "/v1/overrides",
		"failures.json": "/v1/failures", "upstreams.json": "/v1/upstreams", "routes.json": "/v1/routes", "listeners.json": "/v1/listeners",
		"groups.json": "/v1/groups", "services.json": "/v1/services", "revisions.json": "/v1/revisions",
	} {
		b.json(ctx, name, path, nil)
	}
	b.json(ctx, "events.json", "/v1/events", url.Values{"since": {from.Format(time.RFC3339)}, "limit": {fmt.Sprint(maxEvents)}})
	n := 0
	for _, u := range o.Upstreams {
		if u.State == health.Healthy || n == maxSick {
			continue
		}
		n++
		for _, what := range []string{"health", "trend", "failures"} {
			b.json(ctx, "upstreams/"+u.Name+"/"+what+".json", "/v1/upstreams/"+url.PathEscape(u.Name)+"/"+what, nil)
		}
	}
	n = 0
	for _, x := range p.Items {
		if state, _ := proxyState(x); state != "current" && n < maxHoldings {
			n++
			b.json(ctx, "proxies/"+safe(x.ID)+".json", "/v1/proxies/"+url.PathEscape(x.ID)+"/xds", nil)
		}
	}
	for name, path := range map[string]string{"metrics.txt": "/metrics", "readyz.txt": "/readyz?verbose"} {
		text, err := b.g.client().Text(ctx, path)
		if err != nil {
			b.gaps = append(b.gaps, path+": "+err.Error())
			continue
		}
		b.parts = append(b.parts, part{name, []byte(text)})
	}
	return ctx.Err()
}

// safe is an id as a file's name.
func safe(id string) string {
	return strings.Map(func(r rune) rune {
		if r == '/' || r == '\\' || r < ' ' {
			return '_'
		}
		return r
	}, strings.TrimLeft(id, "."))
}

// json adds an answer, without its secrets.
func (b *bundle) json(ctx context.Context, name, path string, q url.Values) {
	v, err := b.pages(ctx, path, q)
	if err != nil {
		b.gaps = append(b.gaps, path+": "+err.Error())
		return
	}
	if m, ok := v.(map[string]any); ok && path == "/v1/events" {
		if items, _ := m["items"].([]any); len(items) == maxEvents {
			b.gaps = append(b.gaps, fmt.Sprintf("events: only the newest %d; ask for less with --since", maxEvents))
		}
	}
	text, err := json.MarshalIndent(redacted(v, false), "", "  ")
	if err != nil {
		b.gaps = append(b.gaps, path+": "+err.Error())
		return
	}
	b.parts = append(b.parts, part{name, append(text, '\n')})
}

// pages asks for an answer, and for what follows where it is a page of a list.
func (b *bundle) pages(ctx context.Context, path string, q url.Values) (any, error) {
	var v any
	if err := b.g.client().Get(ctx, path, q, &v); err != nil {
		return nil, err
	}
	all, ok := v.(map[string]any)
	next, more := all["next"].(string)
	for ok && more && next != "" {
		var page map[string]any
		if err := b.g.client().Get(ctx, path, url.Values{"after": {next}}, &page); err != nil {
			return nil, err
		}
		items, _ := all["items"].([]any)
		rest, _ := page["items"].([]any)
		all["items"] = append(items, rest...)
		next, more = page["next"].(string)
	}
	delete(all, "next")
	return v, nil
}

// secret are the names of what is nobody else's.
var secret = regexp.MustCompile(`(?i)auth|passw|passphrase|secret|token|api[-_]?key|cookie|credential|private[-_]?key|signature|hmac|session|^inline_?(string|bytes)$`)

// valued are what stands beside the name of a header.
var valued = []string{"value", "exact", "prefix", "suffix", "contains", "regex", "string_match", "stringMatch", "safe_regex_match", "append", "set"}

const redaction = "[redacted]"

// redacted takes out the texts under names of secrets, and the values of headers that
// are named so.
func redacted(v any, hide bool) any {
	switch x := v.(type) {
	case map[string]any:
		named := false // {name: Authorization, value: …}
		if slices.ContainsFunc(valued, func(key string) bool { return x[key] != nil }) {
			for _, key := range []string{"name", "key", "header"} {
				text, ok := x[key].(string)
				named = named || ok && secret.MatchString(text)
			}
		}
		for k, e := range x {
			x[k] = redacted(e, hide || secret.MatchString(k) || named && k != "name" && k != "key" && k != "header")
		}
	case []any:
		for i, e := range x {
			x[i] = redacted(e, hide)
		}
	case string:
		if hide && x != "" {
			return redaction
		}
		if path, query, ok := strings.Cut(x, "?"); ok && secret.MatchString(query) {
			return path + "?" + redaction
		}
	}
	return v
}

// write writes the archive.
func (b *bundle) write(w io.Writer) error {
	z := gzip.NewWriter(w)
	t := tar.NewWriter(z)
	var about bytes.Buffer
	fmt.Fprintf(&about, "Wellspring at %s, %s\n", b.g.server, b.now.UTC().Format(time.RFC3339))
	for _, gap := range b.gaps {
		fmt.Fprintf(&about, "not collected: %s\n", gap)
	}
	for _, p := range append([]part{{"README.txt", about.Bytes()}}, b.parts...) {
		if err := t.WriteHeader(&tar.Header{Name: p.name, Mode: 0o600, Size: int64(len(p.text)), ModTime: b.now}); err != nil {
			return err
		}
		if _, err := t.Write(p.text); err != nil {
			return err
		}
	}
	return errors.Join(t.Close(), z.Close())
}
