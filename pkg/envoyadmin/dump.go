package envoyadmin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Dump is what an Envoy's admin said: the answers to /clusters, /stats and /config_dump,
// each in either of the forms that Envoy writes. Parts that were not asked are nil.
type Dump struct {
	Clusters map[string]*Cluster
	Stats    Stats
	Config   *Config
}

// Stats are counters and gauges by name; histograms are left out.
type Stats map[string]uint64

// The files of a saved folder, by what was asked. Stats of a later time are optional.
const (
	FileClusters = "clusters"
	FileStats    = "stats"
	FileLater    = "stats-later"
	FileConfig   = "config_dump"
)

// Dump asks for all three.
func (c *Client) Dump(ctx context.Context) (*Dump, error) {
	config, err := c.ConfigOf(ctx) // first: what a route names is there by then
	if err != nil {
		return nil, err
	}
	return c.dump(ctx, config, "", "")
}

// ConfigOf asks for the configuration alone; DumpWith for what it does with it.
func (c *Client) ConfigOf(ctx context.Context) (*Config, error) {
	text, err := c.get(ctx, "/config_dump")
	if err != nil {
		return nil, err
	}
	return ParseConfig(text)
}

// DumpWith asks for what is of one cluster and of the Envoy itself, beside a configuration
// that was asked for before. An Envoy that does not know the filter says all of its
// clusters, or stats.
func (c *Client) DumpWith(ctx context.Context, config *Config, cluster string) (*Dump, error) {
	return c.dump(ctx, config, "&filter="+url.QueryEscape("^"+regexp.QuoteMeta(cluster)+"$"), statsOf(cluster))
}

// StatsOf asks for the counters and gauges of one cluster, and of the Envoy itself.
func (c *Client) StatsOf(ctx context.Context, cluster string) (Stats, error) {
	return c.stats(ctx, statsOf(cluster))
}

// statsOf keeps what is of a cluster, and of the Envoy itself.
func statsOf(cluster string) string {
	return "?filter=" + url.QueryEscape(`^(cluster\.`+regexp.QuoteMeta(cluster)+`\.|control_plane\.|cluster_manager\.cds\.|listener_manager\.lds\.|server\.)`)
}

// dump asks what an Envoy does now.
func (c *Client) dump(ctx context.Context, config *Config, clustersOf, statsOf string) (*Dump, error) {
	d := &Dump{Config: config}
	clusters, err := c.get(ctx, "/clusters?format=json"+clustersOf)
	if err != nil {
		return nil, err
	}
	if d.Clusters, err = ParseClusters(clusters); err != nil {
		return nil, err
	}
	if d.Stats, err = c.stats(ctx, statsOf); err != nil {
		return nil, err
	}
	return d, nil
}

// Stats asks for the counters and gauges.
func (c *Client) Stats(ctx context.Context) (Stats, error) { return c.stats(ctx, "") }

func (c *Client) stats(ctx context.Context, of string) (Stats, error) {
	text, err := c.get(ctx, "/stats"+of)
	if err != nil {
		return nil, err
	}
	return ParseStats(text)
}

// ReadDump reads a saved folder: clusters, stats and config_dump, with any ending. Where
// there are later stats too, the dump has those, and the others are returned as before.
// A missing file is an error that names it.
func ReadDump(dir fs.FS) (d *Dump, before Stats, err error) {
	d = &Dump{}
	var later Stats
	var errs []error
	parse := func(name string, optional bool, f func([]byte) error) {
		file, text, err := readAny(dir, name)
		switch {
		case errors.Is(err, fs.ErrNotExist) && optional:
		case errors.Is(err, fs.ErrNotExist):
			errs = append(errs, fmt.Errorf("there is no %s; save it with: curl http://ENVOY-ADMIN/%[1]s > %[1]s", name))
		case err != nil:
			errs = append(errs, err)
		default:
			if err := f(text); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", file, err))
			}
		}
	}
	parse(FileClusters, false, func(b []byte) (err error) { d.Clusters, err = ParseClusters(b); return err })
	parse(FileStats, false, func(b []byte) (err error) { d.Stats, err = ParseStats(b); return err })
	parse(FileLater, true, func(b []byte) (err error) { later, err = ParseStats(b); return err })
	parse(FileConfig, false, func(b []byte) (err error) { d.Config, err = ParseConfig(b); return err })
	if later != nil {
		before, d.Stats = d.Stats, later
	}
	return d, before, errors.Join(errs...)
}

// readAny reads a file of a name, or of that name with an ending.
func readAny(dir fs.FS, name string) (file string, text []byte, err error) {
	files, err := fs.Glob(dir, name+".*")
	if err != nil {
		return "", nil, err
	}
	for _, file := range append([]string{name}, files...) {
		info, err := fs.Stat(dir, file)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
		case !info.Mode().IsRegular():
			err = fmt.Errorf("%s is no file", file)
		case info.Size() > maxBody:
			err = fmt.Errorf("%s has %d bytes; at most %d are read", file, info.Size(), maxBody)
		}
		if err != nil {
			return file, nil, err
		}
		text, err := fs.ReadFile(dir, file)
		return file, text, err
	}
	return "", nil, fs.ErrNotExist
}

// ParseStats reads /stats as text or JSON.
func ParseStats(text []byte) (Stats, error) {
	out := Stats{}
	if isJSON(text) {
		var in struct {
			Stats []struct {
				Name  string          `json:"name"`
				Value json.RawMessage `json:"value"`
			} `json:"stats"`
		}
		if err := json.Unmarshal(text, &in); err != nil {
			return nil, fmt.Errorf("read stats: %w", err)
		}
		for _, s := range in.Stats {
			if n, err := strconv.ParseUint(string(s.Value), 10, 64); err == nil && s.Name != "" {
				out[s.Name] = n
			}
		}
		return out, nil
	}
	for line := range strings.Lines(string(text)) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), ": ")
		if !ok {
			continue
		}
		if n, err := strconv.ParseUint(value, 10, 64); err == nil {
			out[name] = n
		}
	}
	if len(out) == 0 {
		return nil, errors.New("read stats: there is no line NAME: NUMBER")
	}
	return out, nil
}

func isJSON(text []byte) bool { return bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) }

// Duration of Envoy's JSON: 0.250s.
type Duration time.Duration

// UnmarshalJSON reads it.
func (d *Duration) UnmarshalJSON(text []byte) error {
	var s string
	if err := json.Unmarshal(text, &s); err != nil {
		return err
	}
	x, err := time.ParseDuration(s)
	*d = Duration(x)
	return err
}

func (d Duration) String() string { return time.Duration(d).String() }
