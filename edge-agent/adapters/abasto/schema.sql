-- Abasto, an invented grocery till on MySQL or MariaDB.
CREATE TABLE sucursal (id INT PRIMARY KEY, nombre VARCHAR(60) NOT NULL);
CREATE TABLE proveedores (id INT PRIMARY KEY, nombre VARCHAR(80) NOT NULL);
CREATE TABLE departamentos (id INT PRIMARY KEY, nombre VARCHAR(60) NOT NULL);
CREATE TABLE categorias (id INT PRIMARY KEY, departamento INT NOT NULL, nombre VARCHAR(60) NOT NULL);
CREATE TABLE subcategorias (id INT PRIMARY KEY, categoria INT NOT NULL, nombre VARCHAR(60) NOT NULL);
CREATE TABLE productos (
    codigo VARCHAR(20) PRIMARY KEY, descripcion VARCHAR(120) NOT NULL, proveedor INT, subcategoria INT,
    existencia DECIMAL(18,3) NOT NULL, costo DECIMAL(18,4));
-- estado: A activo, C cancelado.
CREATE TABLE tickets (
    id BIGINT PRIMARY KEY, fecha DATE NOT NULL, hora TIME NOT NULL, cajero VARCHAR(40), estado CHAR(1) NOT NULL,
    KEY (fecha));
-- Negative quantities and amounts were brought back.
CREATE TABLE partidas (
    ticket BIGINT NOT NULL, renglon INT NOT NULL, producto VARCHAR(20) NOT NULL, cantidad DECIMAL(18,3) NOT NULL,
    precio DECIMAL(18,4) NOT NULL, importe DECIMAL(18,2) NOT NULL, PRIMARY KEY (ticket, renglon));

CREATE SQL SECURITY DEFINER VIEW v_existencias AS SELECT codigo, existencia, costo FROM productos;

DELIMITER $$
-- Sales of each day by product: a header, then the rows.
CREATE PROCEDURE sp_select_ventas_diarias(desde DATE, hasta DATE)
    READS SQL DATA SQL SECURITY DEFINER
BEGIN
    SELECT nombre AS tienda, desde AS desde, hasta AS hasta FROM sucursal;
    SELECT t.fecha AS fecha, (SELECT id FROM sucursal) AS tienda, p.producto AS codigo_producto,
           v.nombre AS proveedor, d.nombre AS departamento, c.nombre AS categoria, s.nombre AS subcategoria,
           SUM(p.cantidad) AS cantidad_vendida, SUM(p.importe) AS importe_vendido
    FROM tickets t
    JOIN partidas p ON p.ticket = t.id
    LEFT JOIN productos a ON a.codigo = p.producto
    LEFT JOIN proveedores v ON v.id = a.proveedor
    LEFT JOIN subcategorias s ON s.id = a.subcategoria
    LEFT JOIN categorias c ON c.id = s.categoria
    LEFT JOIN departamentos d ON d.id = c.departamento
    WHERE t.fecha BETWEEN desde AND hasta AND t.estado = 'A'
    GROUP BY t.fecha, p.producto, v.nombre, d.nombre, c.nombre, s.nombre
    ORDER BY t.fecha, p.producto;
END$$

-- What the till itself says of each day: a header, then rows, units, amount and a hash of the day.
CREATE PROCEDURE sp_audit_operativa(desde DATE, hasta DATE)
    READS SQL DATA SQL SECURITY DEFINER
BEGIN
    SELECT nombre AS tienda, 'operativa' AS auditoria FROM sucursal;
    SELECT q.fecha AS dia, COUNT(*) AS renglones, SUM(q.unidades) AS unidades, SUM(q.importe) AS importe,
           SUM(CAST(CONV(LEFT(MD5(CONCAT_WS('|', q.producto, q.unidades, q.importe)), 15), 16, 10) AS UNSIGNED)) AS huella
    FROM (
        SELECT t.fecha, p.producto, SUM(p.cantidad) AS unidades, SUM(p.importe) AS importe
        FROM tickets t JOIN partidas p ON p.ticket = t.id
        WHERE t.fecha BETWEEN desde AND hasta AND t.estado = 'A'
        GROUP BY t.fecha, p.producto) q
    GROUP BY q.fecha;
END$$
DELIMITER ;
