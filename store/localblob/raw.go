package localblob

import "io"

// Raw gives the bytes of a place as they are, compared with nothing, until done is called: the
// caller knows what they should be. n is how many there are, if the place's name says so, and else
// -1.
func (s *Store) Raw(place string) (r io.ReaderAt, n int64, done func(), err error) {
	h, err := s.startRead(place)
	if err != nil {
		return nil, 0, nil, err
	}
	if n = -1; h.p.in > 0 {
		n = h.p.len
	}
	return io.NewSectionReader(h.f.f, h.p.base(), 1<<62), n, h.endRead, nil
}
