package api

// Held gives what the requests that run hold together: places, and what the bodies of JSON count for.
func (s *Server) Held() (places, text int64) { return s.places.held(), s.text.held() }

// Owned gives the places of requests whose principals are known.
func (s *Server) Owned() int64 {
	s.places.mu.Lock()
	defer s.places.mu.Unlock()
	return s.places.used - s.places.by[""]
}

// Answers gives what answers count for that are not taken yet.
func (s *Server) Answers() int64 { return s.answers.held() }
