package main

import (
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/hashicorp/consul/api"
)

// registry is where the demo's services are: declared in the store, or
// registered in Consul.
type registry interface {
	// set makes the named backends the instances of a service.
	set(service string, backends ...string) error
	// source is how an upstream names it.
	source() string
}

// declared keeps services as Service documents.
type declared struct{ *stage }

func (declared) source() string { return "source: local" }

func (d declared) set(service string, backends ...string) error {
	var eps []string
	for _, b := range backends {
		eps = append(eps, fmt.Sprintf(`{address: "%s", id: %s}`, d.addrs[b], b))
	}
	_, err := d.apply(fmt.Sprintf("%s: %s", service, strings.Join(backends, " ")),
		fmt.Sprintf("kind: Service\nname: %s\nspec: {endpoints: [%s]}\n", service, strings.Join(eps, ", ")))
	return err
}

// registered keeps services in Consul.
type registered struct {
	*stage
	client *api.Client
}

func (registered) source() string { return "source: consul" }

func (r registered) set(service string, backends ...string) error {
	agent := r.client.Agent()
	all, err := agent.ServicesWithFilter(fmt.Sprintf("Service == %q", service))
	if err != nil {
		return err
	}
	for _, b := range backends {
		delete(all, b)
		host, port, err := net.SplitHostPort(r.addrs[b])
		if err != nil {
			return err
		}
		n, err := strconv.Atoi(port)
		if err != nil {
			return err
		}
		if err := agent.ServiceRegister(&api.AgentServiceRegistration{ID: b, Name: service, Address: host, Port: n}); err != nil {
			return err
		}
	}
	for id := range all {
		if err := agent.ServiceDeregister(id); err != nil {
			return err
		}
	}
	return nil
}
