-- Mostrador, an invented counter till on SQL Server.
CREATE TABLE Productos (
    Codigo nvarchar(20) NOT NULL PRIMARY KEY, Descripcion nvarchar(120) NOT NULL, Costo money NULL);
-- By shelf.
CREATE TABLE Existencias (
    Codigo nvarchar(20) NOT NULL, Estante int NOT NULL, Cantidad decimal(18,3) NOT NULL, PRIMARY KEY (Codigo, Estante));
-- Estado: P pagado, X cancelado.
CREATE TABLE Tickets (
    TicketId bigint NOT NULL PRIMARY KEY, FechaNegocio date NOT NULL, Momento datetime2(3) NOT NULL,
    Cliente nvarchar(20) NULL, Estado char(1) NOT NULL);
CREATE INDEX Tickets_FechaNegocio ON Tickets (FechaNegocio);
-- Negative quantities and amounts were brought back.
CREATE TABLE TicketLineas (
    TicketId bigint NOT NULL, Linea int NOT NULL, Codigo nvarchar(20) NOT NULL, Cantidad decimal(18,3) NOT NULL,
    Precio money NOT NULL, Descuento decimal(18,2) NOT NULL, Importe decimal(18,2) NOT NULL,
    PRIMARY KEY (TicketId, Linea));
