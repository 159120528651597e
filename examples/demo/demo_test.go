package main

import (
	"os"
	"strings"
	"testing"

	"github.com/wellspring-xds/wellspring/pkg/envoytest"
	"github.com/wellspring-xds/wellspring/pkg/proc"
)

const program = "../../bin/wellspring"

func needReal(t *testing.T) {
	t.Helper()
	_, err := envoytest.Find("")
	if err == nil {
		_, err = os.Stat(program)
	}
	proc.Need(t, err)
}

// The demo shows what it says, from the store and from Consul.
func TestRealDemo(t *testing.T) {
	needReal(t)
	for name, consul := range map[string]bool{"store": false, "consul": true} {
		t.Run(name, func(t *testing.T) {
			if err := run(t.Context(), program, consul, 0); err != nil {
				t.Error(err)
			}
		})
	}
}

// The demo notices when an act does not happen.
func TestRealDemoSabotaged(t *testing.T) {
	needReal(t)
	t.Setenv("SABOTAGE", "5")
	err := run(t.Context(), program, false, 0)
	if err == nil || !strings.Contains(err.Error(), "act 5: no 503 with flag UH") {
		t.Errorf("the demo said %v, though act 5 was left out", err)
	}
}
