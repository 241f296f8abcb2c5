package main

import (
	"context"
	"fmt"
	"time"

	"sluice/blob"
	"sluice/catalog"
)

const (
	// metaReserve is how many bytes of the disk are kept for the metadata, so that running work can
	// end on a full disk.
	metaReserve = 16 << 20
	// contentReserve is how many bytes of the disk stay free for everything else.
	contentReserve = 64 << 20
	// spaceEvery is how often a server without requests looks whether a full disk has space again.
	spaceEvery = 5 * time.Second
)

// checkSpace says why nothing new may be taken: the data folder is not in its place, or the
// metadata's disk is full.
func (s *server) checkSpace() error {
	if err := s.inPlace(); err != nil {
		return err
	}
	return s.meta.CheckSpace()
}

// ready says what keeps the server from its work: a data folder that is not in its place, a store
// that does not answer, or a full disk.
func (s *server) ready(ctx context.Context) error {
	if err := s.inPlace(); err != nil {
		return err
	}
	if err := s.meta.CheckSpace(); err != nil {
		return fmt.Errorf("%w: %w", blob.ErrNoSpace, err)
	}
	if free, err := s.blobs.Free(ctx); err != nil {
		return err
	} else if free == 0 {
		return fmt.Errorf("the disk is down to its reserve: %w", blob.ErrNoSpace)
	}
	return s.meta.Catalog().View(ctx, func(catalog.Reader) error { return nil })
}

// keepReserve makes the reserve whole again once there is space.
func (s *server) keepReserve(ctx context.Context) {
	tick := time.NewTicker(spaceEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			_ = s.meta.CheckSpace() // it logs a change itself
		}
	}
}
