// Package certificate has a broker show its certificate to clients, and says who a client is
// by the certificate that it shows. Certificates, keys and authorities are PEM, in files that
// are read again when they change, or as text.
package certificate
