package store

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/wellspring-xds/wellspring/pkg/model"
)

// An override survives a restart, makes no revision, and ends by hand or by time.
func TestOverrides(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	changed := s.Changed()
	now := time.Now().UTC()
	hand := model.Override{Upstream: "web", Endpoint: "node/1", Action: model.OverrideDrain, Reason: "new disk", Actor: "anna", Since: now}
	late := model.Override{Upstream: "web", Endpoint: "node/2", Action: model.OverrideEnable, Reason: "false alarm", Actor: "bert", Since: now, Until: now.Add(300 * time.Millisecond)}
	for _, o := range []model.Override{hand, late} {
		if err := s.SetOverride(o); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-changed:
	default:
		t.Error("nobody was told")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	if got := s.Overrides(); len(got) != 2 || got[0] != hand || got[1] != late || s.State().Revision != 0 {
		t.Errorf("after a restart: %+v at revision %d", got, s.State().Revision)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan model.Override, 2)
	done := make(chan struct{})
	go func() { defer close(done); _ = s.ExpireOverrides(ctx, func(o model.Override) { ended <- o }) }()
	select {
	case o := <-ended:
		if o != late || time.Now().Before(late.Until) {
			t.Errorf("ended %+v at %s", o, time.Now())
		}
	case <-time.After(10 * time.Second):
		t.Fatal("its time never came")
	}
	again := hand
	again.Reason, again.Until = "another disk", time.Now().Add(100*time.Millisecond).UTC()
	if err := s.SetOverride(again); err != nil { // it takes the place of the first, and wakes who waits
		t.Fatal(err)
	}
	if got := s.Overrides(); len(got) != 1 || got[0].Reason != "another disk" {
		t.Errorf("%+v", got)
	}
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Fatal("a new end was not heard of")
	}
	cancel()
	<-done
	if _, err := s.EndOverride("web", "node/1"); !errors.Is(err, model.ErrNotFound) {
		t.Errorf("ended twice: %v", err)
	}
	if err := s.SetOverride(hand); err != nil {
		t.Fatal(err)
	}
	if o, err := s.EndOverride("web", "node/1"); err != nil || o != hand || len(s.Overrides()) != 0 {
		t.Errorf("%+v %v", o, err)
	}

	// One that was set anew is not ended by the end of the one before.
	if err := s.SetOverride(hand); err != nil {
		t.Fatal(err)
	}
	renewed := hand
	renewed.Until = time.Now().Add(time.Hour).UTC()
	if err := s.SetOverride(renewed); err != nil {
		t.Fatal(err)
	}
	if _, err := s.endOverride("web", "node/1", func(now model.Override) bool { return now == hand }); !errors.Is(err, model.ErrNotFound) || len(s.Overrides()) != 1 {
		t.Errorf("the renewed one: %v, %+v", err, s.Overrides())
	}
}

// What is over is over though the disk takes no writes.
func TestOverrideEndsWithoutDisk(t *testing.T) {
	s := open(t, t.TempDir())
	o := model.Override{Upstream: "web", Endpoint: "node/1", Action: model.OverrideDrain, Since: time.Now().UTC(), Until: time.Now().Add(50 * time.Millisecond).UTC()}
	if err := s.SetOverride(o); err != nil {
		t.Fatal(err)
	}
	if err := s.db.Close(); err != nil { // every write fails from now on
		t.Fatal(err)
	}
	changed := s.Changed()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = s.ExpireOverrides(ctx, func(model.Override) {}) }()
	select {
	case <-changed:
	case <-time.After(10 * time.Second):
		t.Error("its time never came")
	}
	if got := s.Overrides(); len(got) != 0 {
		t.Errorf("still %+v", got)
	}
	cancel()
	<-done
}
