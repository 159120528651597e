package main

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"github.com/wellspring-xds/wellspring/discovery/consul"
	"github.com/wellspring-xds/wellspring/pkg/diagnose"
	"github.com/wellspring-xds/wellspring/pkg/spec"
)

const defaultAdminListen = "127.0.0.1:18002"

// config is the server's configuration: flag > environment > file > default.
// Every scalar key has a flag and a variable named by its path: xds.listen is
// --xds-listen and WELLSPRING_XDS_LISTEN.
type config struct {
	DataDir    string           `json:"dataDir,omitempty" default:"./wellspring-data" doc:"where the store lies; created with mode 0700"`
	XDS        xdsConfig        `json:"xds,omitempty" doc:"the xDS server"`
	Telemetry  telemetryConfig  `json:"telemetry,omitempty" doc:"the server that proxies report to"`
	Admin      adminConfig      `json:"admin,omitempty" doc:"the admin API"`
	Insecure   bool             `json:"insecureListen,omitempty" doc:"listen beyond this machine though anybody could come in"`
	Secrets    secretsConfig    `json:"secrets,omitempty" doc:"certificates and keys that documents name"`
	History    historyConfig    `json:"history,omitempty" doc:"how much of the documents' history is kept"`
	Events     eventsConfig     `json:"events,omitempty" doc:"how much of what happened is kept on disk, in DATA/events"`
	EnvoyAdmin envoyAdminConfig `json:"envoyAdmin,omitempty" doc:"asking proxies what they hold"`
	Probe      probeConfig      `json:"probe,omitempty" doc:"trying endpoints from here, where somebody asks why requests fail"`
	Log        logConfig        `json:"log,omitempty" doc:"the log on stderr"`
	Notify     notifyConfig     `json:"notify,omitempty" doc:"who is told of an outage"`
	Hooks      []hookConfig     `json:"hooks,omitempty" doc:"what is done by itself when a cause is found; none unless you write them"`
	Freshness  freshnessConfig  `json:"freshness,omitempty" doc:"measuring how long a change takes from a source to the proxies"`
	Sources    []sourceConfig   `json:"sources,omitempty" doc:"registries; --consul ADDR is short for one named consul"`
}

type xdsConfig struct {
	Listen           string        `json:"listen,omitempty" default:"127.0.0.1:18000" doc:"IP:PORT or unix:///path of the xDS server; port 0 chooses one; beyond loopback it needs TLS and a clientCA"`
	TLS              tlsConfig     `json:"tls,omitempty" doc:"TLS of the xDS server"`
	ReadyDeadline    spec.Duration `json:"readyDeadline,omitempty" doc:"serve after this though not every service has answered again since the start; 0s is never"`
	WarmWait         spec.Duration `json:"warmWait,omitempty" default:"20s" minimum:"1ms" doc:"longest wait of a route for the clusters that it newly names"`
	PushWait         spec.Duration `json:"pushWait,omitempty" default:"1s" minimum:"1ms" doc:"wait for a cluster answer before the next cluster response"`
	MaxConnectionAge spec.Duration `json:"maxConnectionAge,omitempty" doc:"ask a proxy to connect anew after this, a tenth more or less, so that a fleet spreads over several servers behind one address; 0s is never"`
}

type telemetryConfig struct {
	Listen string    `json:"listen,omitempty" default:"127.0.0.1:18001" doc:"IP:PORT or unix:///path of the server that proxies report to (OTLP over HTTP and gRPC, access logs over gRPC); port 0 chooses one; beyond loopback it needs TLS and a clientCA"`
	TLS    tlsConfig `json:"tls,omitempty" doc:"TLS of the telemetry server"`
}

type adminConfig struct {
	Listen       string    `json:"listen,omitempty" default:"127.0.0.1:18002" doc:"IP:PORT or unix:///path of the admin API; port 0 chooses one; beyond loopback it needs TLS, and tokens or a clientCA"`
	TLS          tlsConfig `json:"tls,omitempty" doc:"TLS of the admin API"`
	TokensFile   string    `json:"tokensFile,omitempty" doc:"file with the tokens that are taken, one line each as wellspring token prints it; read again when it changes"`
	Writers      []string  `json:"writers,omitempty" doc:"names in client certificates that may write, exact or with one * at the beginning or the end; others may read"`
	Pprof        bool      `json:"pprof,omitempty" doc:"serve Go's profiles of this process at /debug/pprof/, to whoever may write"`
	AllowedHosts []string  `json:"allowedHosts,omitempty" doc:"names of this server besides localhost and its addresses"`
}

// tlsConfig names files, which are read again when they change.
type tlsConfig struct {
	Cert     string `json:"cert,omitempty" doc:"file with the server's certificate and what it was signed by"`
	Key      string `json:"key,omitempty" doc:"file with its key"`
	ClientCA string `json:"clientCA,omitempty" doc:"file with the authorities of client certificates; xDS and telemetry clients must present one then, admin clients one or a token"`
}

func (t tlsConfig) on() bool { return t.Cert != "" }

type historyConfig struct {
	Keep   uint32        `json:"keep,omitempty" default:"1000" minimum:"1" doc:"revisions that are kept; those that changed only services are counted apart"`
	MaxAge spec.Duration `json:"maxAge,omitempty" default:"2160h" minimum:"1m" doc:"longest that a revision is kept; the present one always is"`
}

type eventsConfig struct {
	MaxMegabytes uint32        `json:"maxMegabytes,omitempty" default:"256" minimum:"1" doc:"most megabytes that events take"`
	MaxAge       spec.Duration `json:"maxAge,omitempty" default:"720h" minimum:"1m" doc:"longest that an event is kept"`
}

// notifyConfig is whom we call by ourselves.
type notifyConfig struct {
	After     spec.Duration    `json:"after,omitempty" default:"30s" minimum:"1s" doc:"for how long an upstream must be hidden, critical or empty before anybody is told"`
	Clear     spec.Duration    `json:"clear,omitempty" default:"1m" minimum:"1s" doc:"for how long it must be well before that is told"`
	Loopback  bool             `json:"allowLoopback,omitempty" doc:"receivers, and URLs of hooks, may be on this machine"`
	Receivers []receiverConfig `json:"receivers,omitempty" doc:"who is told: one message when an outage begins, one when it is over"`
}

type receiverConfig struct {
	Name      string `json:"name" required:"true" doc:"as metrics and the log say it"`
	Form      string `json:"form,omitempty" default:"webhook" enum:"webhook,alertmanager" doc:"webhook: one JSON message for each outage. alertmanager: an alert for each upstream, by its API v2"`
	URL       string `json:"url" required:"true" doc:"of the webhook, or the base of the Alertmanager"`
	TokenFile string `json:"tokenFile,omitempty" doc:"file with the bearer token to send"`
}

// hookConfig is what is done when a cause is found.
type hookConfig struct {
	Name      string        `json:"name" required:"true" doc:"as events and the log say it"`
	Codes     []string      `json:"codes,omitempty" doc:"of the causes that it is for, as docs/causes.md lists them; default all"`
	Severity  string        `json:"severity,omitempty" default:"critical" enum:"critical,any" doc:"critical: only while requests fail, or would. any: for warnings too"`
	Command   []string      `json:"command,omitempty" doc:"absolute path of a program, and its arguments; it is started without a shell, as the user of this server, with the finding as JSON on its stdin and WELLSPRING_CODE, _KIND, _NAME and _SEVERITY in its environment"`
	URL       string        `json:"url,omitempty" doc:"in place of a command: is sent the finding as JSON, by POST"`
	TokenFile string        `json:"tokenFile,omitempty" doc:"file with the bearer token to send"`
	Every     spec.Duration `json:"every,omitempty" default:"10m" minimum:"1m" doc:"least time between two runs for one upstream"`
	PerHour   uint32        `json:"perHour,omitempty" default:"12" minimum:"1" doc:"how often it may run in an hour, for all together"`
	Timeout   spec.Duration `json:"timeout,omitempty" default:"30s" minimum:"1s" doc:"how long a run may take"`
}

type freshnessConfig struct {
	Interval spec.Duration `json:"interval,omitempty" doc:"register a canary in each source, and change it each time that this is over; every Envoy gets a cluster for each source, to which no request goes; 5s to 1m, 30s is a good choice, 0s registers none"`
}

type secretsConfig struct {
	Dir string `json:"dir,omitempty" doc:"the one folder below which documents may name files; default DATA/secrets"`
}

// probeConfig is what explain tries of endpoints.
type probeConfig struct {
	Enabled  bool `json:"enabled,omitempty" default:"true" doc:"explain tries an upstream's health check, or a connection, from here: once, at its endpoints only"`
	Loopback bool `json:"allowLoopback,omitempty" doc:"endpoints may be on this machine; where proxies run on others, those are not the same"`
}

type envoyAdminConfig struct {
	SocketDir string `json:"socketDir,omitempty" doc:"the one folder whose unix sockets may be asked; default none"`
}

type logConfig struct {
	Level  string `json:"level,omitempty" default:"info" enum:"debug,info,warn,error" doc:"least level that is logged"`
	Format string `json:"format,omitempty" default:"text" enum:"text,json" doc:"form of a line"`
}

type sourceConfig struct {
	Name   string        `json:"name" required:"true" doc:"as upstreams say it in service.source"`
	Import string        `json:"import,omitempty" default:"none" enum:"none,tagged,all" doc:"services that are upstreams without being declared: none, those with the tag wellspring, or all; listeners with autoRoutes lead to them"`
	Canary string        `json:"canary,omitempty" default:"on" enum:"on,off" doc:"whether a canary is registered in it, where freshness.interval is set and consul.datacenter is not; its token needs service:write on wellspring-canary"`
	Consul *consulConfig `json:"consul" required:"true" doc:"a Consul agent or server"`
}

type consulConfig struct {
	Address        string         `json:"address,omitempty" doc:"HOST:PORT, http(s)://… or unix:///…; default CONSUL_HTTP_ADDR, then 127.0.0.1:8500"`
	Token          string         `json:"token,omitempty" doc:"ACL token; better tokenFile, or CONSUL_HTTP_TOKEN"`
	TokenFile      string         `json:"tokenFile,omitempty" doc:"file with the ACL token"`
	Datacenter     string         `json:"datacenter,omitempty" doc:"default datacenter of queries"`
	Namespace      string         `json:"namespace,omitempty" doc:"default namespace (Enterprise)"`
	Partition      string         `json:"partition,omitempty" doc:"default partition (Enterprise)"`
	TLS            *consulTLS     `json:"tls,omitempty" doc:"for https"`
	MaxConnections uint32         `json:"maxConnections,omitempty" default:"200" minimum:"41" doc:"Consul's limits.http_max_conns_per_client; 40 less are used for watches"`
	Locality       localityConfig `json:"locality,omitempty" doc:"metadata keys that hold the locality"`
}

type consulTLS struct {
	CA                 string `json:"ca,omitempty" doc:"file with the CA's certificate"`
	Cert               string `json:"cert,omitempty" doc:"file with our certificate"`
	Key                string `json:"key,omitempty" doc:"file with our key"`
	ServerName         string `json:"serverName,omitempty" doc:"name in Consul's certificate, where it is not the address"`
	InsecureSkipVerify bool   `json:"insecureSkipVerify,omitempty" doc:"do not verify Consul's certificate"`
}

type localityConfig struct {
	Region  string `json:"region,omitempty" default:"region" doc:"key of the region"`
	Zone    string `json:"zone,omitempty" default:"zone" doc:"key of the zone"`
	SubZone string `json:"subzone,omitempty" default:"subzone" doc:"key of the sub-zone"`
}

// leaf is one scalar key.
type leaf struct {
	path, flag, env, doc, minimum, enum string
	value                               reflect.Value
}

// leaves lists the scalar keys of a configuration.
func leaves(c *config) []leaf {
	var out []leaf
	var walk func(prefix string, v reflect.Value)
	walk = func(prefix string, v reflect.Value) {
		for i := range v.NumField() {
			f := v.Type().Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			path := strings.TrimPrefix(prefix+"."+name, ".")
			switch fv := v.Field(i); fv.Kind() {
			case reflect.Struct:
				walk(path, fv)
			case reflect.Slice:
			default:
				flag, doc := kebab(path), f.Tag.Get("doc")
				if enum := f.Tag.Get("enum"); enum != "" {
					doc += ": " + strings.ReplaceAll(enum, ",", ", ")
				}
				out = append(out, leaf{path, flag, "WELLSPRING_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_")), doc, f.Tag.Get("minimum"), f.Tag.Get("enum"), fv})
			}
		}
	}
	walk("", reflect.ValueOf(c).Elem())
	return out
}

// kebab turns xds.readyDeadline into xds-ready-deadline, and clientCA into
// client-ca.
func kebab(path string) string {
	var b strings.Builder
	lower := false
	for _, r := range path {
		switch {
		case r == '.':
			b.WriteByte('-')
		case unicode.IsUpper(r) && lower:
			b.WriteByte('-')
			b.WriteRune(unicode.ToLower(r))
		default:
			b.WriteRune(unicode.ToLower(r))
		}
		lower = unicode.IsLower(r)
	}
	return b.String()
}

func (l leaf) set(text string) error {
	if l.value.Type() == reflect.TypeFor[spec.Duration]() {
		d, err := time.ParseDuration(text)
		if err != nil || d < 0 {
			return fmt.Errorf("%q is not a duration; write 250ms, 2s or 1m30s", text)
		}
		if least, err := time.ParseDuration(l.minimum); err == nil && d < least {
			return fmt.Errorf("%s is below the least that is taken, %s", d, least)
		}
		l.value.SetInt(int64(d))
		return nil
	}
	if l.value.Kind() == reflect.Bool {
		on, err := strconv.ParseBool(text)
		if err != nil {
			return fmt.Errorf("%q is neither true nor false", text)
		}
		l.value.SetBool(on)
		return nil
	}
	if l.value.Kind() == reflect.Uint32 {
		n, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return fmt.Errorf("%q is not a whole number", text)
		}
		if least, _ := strconv.ParseUint(l.minimum, 10, 32); n < least {
			return fmt.Errorf("%d is below the least that is taken, %d", n, least)
		}
		l.value.SetUint(n)
		return nil
	}
	if allowed := strings.Split(l.enum, ","); l.enum != "" && !slices.Contains(allowed, text) {
		return fmt.Errorf("%q is not known; allowed are %s", text, strings.Join(allowed, ", "))
	}
	l.value.SetString(text)
	return nil
}

func (l leaf) text() string {
	if l.value.Type() == reflect.TypeFor[spec.Duration]() {
		return time.Duration(l.value.Int()).String()
	}
	switch l.value.Kind() {
	case reflect.Bool:
		return strconv.FormatBool(l.value.Bool())
	case reflect.Uint32:
		return strconv.FormatUint(l.value.Uint(), 10)
	}
	return l.value.String()
}

// configFlags adds the flags of a server's configuration and returns what reads
// it all once they are parsed.
func configFlags(cmd *cobra.Command) func() (*config, error) {
	defaults := &config{}
	spec.SetDefaults(defaults)
	file := cmd.Flags().StringP("config", "c", "", "file with the configuration")
	consulAddress := cmd.Flags().String("consul", "", "address of a Consul: short for one source named consul")
	given := map[string]*string{}
	for _, l := range leaves(defaults) {
		given[l.flag] = cmd.Flags().String(l.flag, l.text(), l.doc)
		if l.value.Kind() == reflect.Bool {
			cmd.Flags().Lookup(l.flag).NoOptDefVal = "true"
		}
	}
	return func() (*config, error) {
		c := &config{}
		var text []byte
		if *file != "" {
			var err error
			if text, err = os.ReadFile(*file); err != nil {
				return nil, &exitError{exitData, err.Error()}
			}
		}
		if err := spec.DecodeStrict(*file, text, c).Err(); err != nil {
			return nil, err
		}
		for _, l := range leaves(c) {
			if v, ok := os.LookupEnv(l.env); ok {
				if err := l.set(v); err != nil {
					return nil, &exitError{exitData, l.env + ": " + err.Error()}
				}
			}
			if cmd.Flags().Changed(l.flag) {
				if err := l.set(*given[l.flag]); err != nil {
					return nil, &exitError{exitUsage, "--" + l.flag + ": " + err.Error()}
				}
			}
		}
		if *consulAddress != "" {
			s := sourceConfig{Name: "consul", Import: string(consul.ImportNone), Canary: canaryOn, Consul: &consulConfig{}}
			spec.SetDefaults(s.Consul)
			s.Consul.Address = *consulAddress
			c.Sources = append(c.Sources, s)
		}
		c.Secrets.Dir = cmp.Or(c.Secrets.Dir, filepath.Join(c.DataDir, "secrets"))
		return c, c.check()
	}
}

// check finds what no single key shows.
func (c *config) check() error {
	errs := append(slices.Concat(c.door("xds", c.XDS.Listen, c.XDS.TLS, false), c.door("telemetry", c.Telemetry.Listen, c.Telemetry.TLS, false)), c.door("admin", c.Admin.Listen, c.Admin.TLS, c.Admin.TokensFile != "")...)
	if len(c.Admin.Writers) > 0 && c.Admin.TLS.ClientCA == "" {
		errs = append(errs, errors.New("admin.writers: are names in client certificates; admin.tls.clientCA is needed for them"))
	}
	for i, name := range c.Admin.Writers {
		if strings.Contains(strings.Trim(name, "*"), "*") || strings.Trim(name, "*") == "" {
			errs = append(errs, fmt.Errorf("admin.writers[%d]: %q is neither a name nor one with a * at the beginning or the end", i, name))
		}
	}
	for _, l := range []struct {
		key, at string
		tls     tlsConfig
	}{{"xds", c.XDS.Listen, c.XDS.TLS}, {"telemetry", c.Telemetry.Listen, c.Telemetry.TLS}, {"admin", c.Admin.Listen, c.Admin.TLS}} {
		if strings.HasPrefix(l.at, "unix://") && l.tls.on() {
			errs = append(errs, fmt.Errorf("%s.tls: a socket is not encrypted; leave tls out, or listen on an address", l.key))
		}
	}
	if age := c.XDS.MaxConnectionAge.D(); age > 0 && age < leastAge {
		errs = append(errs, fmt.Errorf("xds.maxConnectionAge: %s is below the least that is taken, %s; 0s is never", age, leastAge))
	}
	if every := c.Freshness.Interval.D(); every != 0 && (every < leastInterval || every > mostInterval) {
		errs = append(errs, fmt.Errorf("freshness.interval: %s is not taken; write %s to %s, or 0s", every, leastInterval, mostInterval))
	}
	told := map[string]bool{}
	for i, r := range c.Notify.Receivers {
		if !isURL(r.URL) {
			errs = append(errs, fmt.Errorf("notify.receivers[%d].url: %q is no http:// or https:// URL", i, r.URL))
		}
		if told[r.Name] {
			errs = append(errs, fmt.Errorf("notify.receivers[%d].name: %q is taken", i, r.Name))
		}
		told[r.Name] = true
	}
	errs = append(errs, c.checkHooks()...)
	seen := map[string]bool{spec.SourceLocal: true}
	for i, s := range c.Sources {
		if seen[s.Name] {
			errs = append(errs, fmt.Errorf("sources[%d].name: %q is taken; source names are unique, and local is the store's own", i, s.Name))
		}
		seen[s.Name] = true
	}
	if err := errors.Join(errs...); err != nil {
		return &exitError{exitData, err.Error()}
	}
	return nil
}

// checkHooks finds what is wrong with hooks.
func (c *config) checkHooks() (errs []error) {
	names := map[string]bool{}
	for i, h := range c.Hooks {
		at := fmt.Sprintf("hooks[%d].", i)
		if names[h.Name] {
			errs = append(errs, fmt.Errorf("%sname: %q is taken", at, h.Name))
		}
		names[h.Name] = true
		switch {
		case (len(h.Command) > 0) == (h.URL != ""):
			errs = append(errs, fmt.Errorf("%scommand: write a command or a url, one of them", at))
		case h.URL == "" && !filepath.IsAbs(h.Command[0]):
			errs = append(errs, fmt.Errorf("%scommand[0]: %q is no absolute path of a program", at, h.Command[0]))
		case h.URL == "" && h.TokenFile != "":
			errs = append(errs, fmt.Errorf("%stokenFile: goes with a url", at))
		case h.URL != "" && !isURL(h.URL):
			errs = append(errs, fmt.Errorf("%surl: %q is no http:// or https:// URL", at, h.URL))
		}
		for j, code := range h.Codes {
			if _, known := diagnose.CauseOf(diagnose.Code(code)); !known {
				errs = append(errs, fmt.Errorf("%scodes[%d]: there is no cause %q; docs/causes.md lists them", at, j, code))
			}
		}
	}
	return errs
}

func isURL(text string) bool {
	u, err := url.Parse(text)
	return err == nil && u.Host != "" && (u.Scheme == "http" || u.Scheme == "https")
}

// Bounds of freshness.interval: each flip is a write to the registry.
const (
	leastInterval = 5 * time.Second
	mostInterval  = time.Minute
	canaryOn      = "on"
)

// leastAge of a connection; a fleet that connects anew is sent its endpoints again.
const leastAge = time.Second

// door checks how a listener may be reached. Beyond this machine it needs TLS and a
// credential to ask for: an address is not an identity.
func (c *config) door(name, listen string, t tlsConfig, tokens bool) (errs []error) {
	at, err := address(listen)
	if err != nil {
		return []error{fmt.Errorf("%s.listen: %w", name, err)}
	}
	if t.on() != (t.Key != "") || t.ClientCA != "" && !t.on() {
		errs = append(errs, fmt.Errorf("%s.tls: cert and key go together, and clientCA needs both", name))
	}
	credential := "a clientCA"
	if name == "admin" {
		credential = "a clientCA or a tokensFile"
	}
	if !at.local && !c.Insecure && (!t.on() || t.ClientCA == "" && !tokens) {
		errs = append(errs, fmt.Errorf("%s.listen: %s can be reached from elsewhere and needs %s.tls with %s; or say --insecure-listen, and anybody may come in", name, listen, name, credential))
	}
	return errs
}

func configCommand(g *global) *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "The server's configuration", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }, Example: "  wellspring config print --effective -c wellspring.yaml"}
	print := &cobra.Command{
		Use: "print", Short: "Print every key with its value, as YAML", Args: cobra.NoArgs,
		Long:    "Prints the configuration that `serve` would run with: flag > environment >\nfile > default. Without --effective only the defaults are printed. A token is\nshown as ***.",
		Example: "  wellspring config print\n  wellspring config print --effective -c wellspring.yaml",
	}
	read := configFlags(print)
	effective := print.Flags().Bool("effective", false, "with file, environment and flags")
	print.RunE = func(cmd *cobra.Command, _ []string) error {
		c := &config{}
		spec.SetDefaults(c)
		if *effective {
			var err error
			if c, err = read(); err != nil {
				return err
			}
		}
		for i := range c.Sources {
			if c.Sources[i].Consul.Token != "" {
				shown := *c.Sources[i].Consul
				shown.Token = "***"
				c.Sources[i].Consul = &shown
			}
		}
		text, err := yaml.MarshalWithOptions(tree(reflect.ValueOf(c).Elem()), yaml.Indent(2))
		if err == nil && g.output == "json" {
			text, err = yaml.YAMLToJSON(text)
		}
		if err != nil {
			return err
		}
		_, err = cmd.OutOrStdout().Write(text)
		return err
	}
	cmd.AddCommand(print)
	return cmd
}

// tree is a struct as an ordered mapping, empty texts included.
func tree(v reflect.Value) any {
	switch {
	case v.Type() == reflect.TypeFor[spec.Duration]():
		return time.Duration(v.Int()).String()
	case v.Kind() == reflect.Pointer:
		if v.IsNil() {
			return nil
		}
		return tree(v.Elem())
	case v.Kind() == reflect.Struct:
		var m yaml.MapSlice
		for i := range v.NumField() {
			name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
			m = append(m, yaml.MapItem{Key: name, Value: tree(v.Field(i))})
		}
		return m
	case v.Kind() == reflect.Slice:
		out := []any{}
		for i := range v.Len() {
			out = append(out, tree(v.Index(i)))
		}
		return out
	}
	return v.Interface()
}
