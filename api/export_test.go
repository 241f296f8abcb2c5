package api

// Held gives what the requests that run hold together: places, and what the bodies of JSON count for.
func (s *Server) Held() (places, text int64) { return s.places.held(), s.text.held() }
